"""For authors: run the course, write its pages, keep notebooks in form, derive exercises."""
