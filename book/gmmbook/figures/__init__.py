"""The figures of the book, a module for each chapter, drawn with ``gmmedu.plot``.

A chapter computes what a figure shows and hands it over; here it is only drawn.
"""
