"""Asterisk is watched between two monitors, by one process that lives as long as it does.

The watcher asks; it judges nothing. Where a part is silent it starts the judge, which is the
agent's own monitor, and only the judge's verdict is told to Pacemaker.
"""
