#!/bin/sh
# A pre-build hook that notes its parent's parent (the daemon, if pids are the machine's) and its first
# argument, and maps nothing.
daemon=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$PPID/status")
echo "$daemon $1" >> /var/hook.log
