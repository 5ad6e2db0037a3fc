"""The page that compares the trials of a sweep: one HTML file that needs nothing but itself."""

from ratchet.comparison.gather import ComparedTrial, Comparison, gather
from ratchet.comparison.page import draw_page

__all__ = ["ComparedTrial", "Comparison", "draw_page", "gather"]
