"""Every drawing: maps, patches, tests, names, directions, curves. One palette; no result imports its own figure in a
circle.
"""
