"""Installs the other products in every Python process that has this folder on its path."""

from other_products import install

install()
