"""Everything that waits: files, sockets, Postfix's commands, the store. No rule about mail."""
