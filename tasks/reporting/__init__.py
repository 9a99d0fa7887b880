"""What `tasks.report` is made of: reading a study, comparing its policies, drawing, and the page."""
