"""Moving bytes: from a source into a staging folder, in parallel, verified in order, resumable."""
