"""Made pairs: planned, drawn, drawn again, written, exported."""
