"""The text: where it comes from, who gets which rows, and in what batches.

catalogue -> assets     pinned files out of registry packages, fetched once, verified
asset_tables, files     reading them, or a person's own rows
table -> sources        checked rows; training and test parts
partition               which rows lie on which device
batches                 encoded rows, padded; the only module here that needs torch
"""
