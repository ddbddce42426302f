"""Looking at and talking to Asterisk; what to make of it is the agent's business.

proc looks at the process with the kernel's eyes; wire, control, ami and sip talk
to it; probes asks it whether it lives; unit starts it and tidies up after it.
"""
