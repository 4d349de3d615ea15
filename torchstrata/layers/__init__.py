"""Wheels, toolchain, bytecode and OS packages become layers."""
