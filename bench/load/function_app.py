"""drover's functions for the table: the work and nothing else."""

from work import async_job, job

__all__ = ["async_job", "job"]
