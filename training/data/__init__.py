"""Photographs and holes to train and to test on.

`datasets.open_dataset` finds the files of a split, one module a dataset; `photographs` turns a file
into pixels; `holes` draws what is missing; `pipeline` makes the endless stream of batches.
"""
