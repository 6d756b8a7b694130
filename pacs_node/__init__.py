"""pacs-node: a DICOM-native PACS integration node. Research use only."""
