"""The PBX's data on the replicated disk: bind mounts, space, databases, holders."""

# What a SARK, SAIL or plain Asterisk keeps its state in. /usr/share/asterisk as a
# whole: greetings (sounds/usergreeting*), each tenant's moh-* and AGI scripts are
# created there while it runs. Optional is what not every release has or uses.
PATHS = """
/etc/asterisk:asterisk
/var/lib/asterisk:asterisk
/var/spool/asterisk:asterisk
/var/log/asterisk:asterisk
/usr/share/asterisk
/var/lib/mysql:mysql
/var/lib/ldap:openldap?
/opt/sark/db:www-data
/opt/sark/passwd?
/opt/sark/media?
/opt/sark/www/origrecs?
/opt/sark/otrr?
/opt/sark/mixmon?
/opt/sark/bkup?
/opt/sark/snap?
/opt/sark/public?
"""
