"""make soak: 300 calls, reloads, debuggers and busy processors, and nothing may fail.

calls      SIPp, the telephones
disturb    what happens to Asterisk all the while
monitors   what Pacemaker's monitors did, from its log
sampler    runs in the node: how long each of the agent's questions takes
cost       what the monitors cost, rounds.py runs in the node
report     what is judged and printed
"""
