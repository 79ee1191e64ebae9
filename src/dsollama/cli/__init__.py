"""The command line: parse, call one function, render. No logic.

A command's module imports what it runs inside the command, because `--help` must not wait for
the clients' imports (`import ollama` alone takes most of a second).
"""
