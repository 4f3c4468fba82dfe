"""Records: what was measured, on what, with which command; written once, read by notebooks and
reports."""
