"""What the node knows: instances, studies, jobs, deliveries, in one database."""
