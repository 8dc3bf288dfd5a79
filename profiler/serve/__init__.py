"""`profile serve`: a local dashboard of devices, running builds, tables and NetAdapt runs, read from files."""
