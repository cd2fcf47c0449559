"""``make bench``: run every benchmark and keep its figures in ``benchmarks/results/``."""

from benchmarks import scoring, side_by_side

side_by_side.main()
scoring.main()
