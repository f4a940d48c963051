"""Notifications: CloudEvents for the receivers of CertificateProfiles and CertificateAuthorities.

events      what is sent: CloudEvents and their signature
receivers   who is told what
changes     orders that may have something to tell, in the order of their resourceVersions
expiring    certificates and CAs that end soon
progress    how far each receiver has been told, in Leases
turns       long loops
post        one request to a receiver
refused     refusals, which are stored nowhere
delivery    sends, retries and takes turns
service     all of it, wired
"""
