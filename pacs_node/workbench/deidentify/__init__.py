"""De-identification by PS3.15 Annex E: the Basic Profile with options.

::

    options.py      what was asked for; its codes of CID 7050
    profile.py      attribute ─► action: the standard's table, from a maintained library, and the options on top of it
    iods.py         SOP class ─► how badly an attribute is needed: what may be removed, emptied, or has to be replaced
    pseudonyms.py   UID ─► UID, patient ─► pseudonym, the same in every run: a file of its own, kept apart from what is exported
    traces.py       the values that identify, as they stand in a source; where they still stand in what was made of it
    codes.py        whether a code's words are a public scheme's; which concepts say something of the patient
    words.py        text ─► what of it says nothing about anybody
    cleaning.py     dataset ─► de-identified dataset
    pixels.py       burnt-in text: what is refused, what is blanked
    heads.py        whether a face can be made of the pixels
"""
