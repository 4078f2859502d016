"""The status page: what an admin sees at a glance, read-only, with no more access than looking needs.

One module a view, each a function from what was read to what is shown; the templates only lay it out.
"""
