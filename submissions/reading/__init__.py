"""What the database says of evaluations, jobs and workers, as records for the API and the pages. Never writes."""
