"""`kms-acme console`: pages for people, served to their own browser with the rights of their kubeconfig.

server          listens on the loopback address, starts and stops
application     routes, headers, and what a request must have
gate            who may see the pages; pure
pages           one handler for each page
inventory       what the pages show: objects, kept by list and watch
collection      the objects of one kind, as far as they have been read and may be read
entries         what is kept of orders, accounts, credentials and Events
notes           what is still being read, may not be read, or is outdated; pure
changes         tells open pages that something has changed
overview        what is not Ready, what ends soon, the last day; pure
listing         search, filter and pages of lists; pure
hierarchy       CAs as a tree; pure
links           where a reader may want to go from the story of an order; pure
usage           what accounts and credentials have used; pure
pictures        bars as SVG, each with its table; pure
rendering       templates, which escape everything
"""
