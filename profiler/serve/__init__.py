"""`profile serve`: devices, running builds, tables and NetAdapt runs, as they lie on the disk, on a small local web page."""
