"""From a request to the rule that takes it and the action it gets.

Pure: no sockets, no clock, no Twisted.  A listener is compiled once for each configuration
(`lbproxy.dataplane.router.table.Table`) and then asked once for each request.
"""
