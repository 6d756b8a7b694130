"""The network and its arithmetic: arrays in, arrays out.

Knows no DICOM, no database and nothing else of the package. `network` and `gates` are the model, `corruption`, `losses` and
`fitting` train it, `scoring` turns its output into maps and scores, `calibration` turns scores into statements.
"""
