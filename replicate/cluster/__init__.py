"""Workers, started here, submitted to Slurm or found in a running Dask cluster, and the jobs that they are given."""
