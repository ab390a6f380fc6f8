"""From runs to tables and pages."""
