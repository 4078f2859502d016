"""Channels: how a note looks there, and what the answers to it mean. One module a channel; none of them sends."""
