"""Comparison of runs from their own records: reading, grouping, intervals, the table and the page.

    run_folders, wandb_offline, wandb_server  ->  runs  ->  groups, settings, intervals  ->  table  ->  text, page

Imports nothing heavy, and plotly only for the page.
"""
