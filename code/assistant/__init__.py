"""The plumbing of exercise 4: back ends, conversation, retrieval, terminal and page.

It never imports the script.
"""
