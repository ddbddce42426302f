"""The last configuration that served: it is kept, and started with where today's cannot be."""

# State files: how /etc/asterisk was at the start that is to be kept; the generation with
# which Asterisk runs, and what people are told; why the files were not kept.
WAS, KEPT, UNKEPT = "etc", "last-good", "not-kept"

# Seconds after a start: the telephones have registered and the services beside Asterisk have
# started, so a copy holds nobody up. Who has served so long has served.
SERVED_SECONDS = 30.0
