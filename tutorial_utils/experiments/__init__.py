"""The longer experiments of the lessons: code that measures, and code that keeps the result as a recording."""
