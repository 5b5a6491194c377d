"""``absence-plugins experiment debias``: training that is told to leave an artefact alone, on digits or on a folder of
images.
"""
