"""Scores of made images: of one defect, of a folder, of other people's results."""
