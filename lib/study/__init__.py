"""The study: records, scores, intervals, costs, claims, figures and the strict notebook runner."""
