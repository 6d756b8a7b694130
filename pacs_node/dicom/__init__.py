"""The parts of the DICOM standard that every room needs, as tables and small readers."""
