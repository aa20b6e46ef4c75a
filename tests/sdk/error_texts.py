"""What the server says of what it refuses, to the letter."""

E101 = "Error 101: invalid clientID value, cannot be empty"
E102 = "Error 102: invalid channel value, cannot be empty"
E107 = "Error 107: invalid channel value, no wildcards are allowed"
E108 = "Error 108: invalid channel value, no white spaces are allowed"
E109 = "Error 109: invalid set timeout value, cannot be 0 or negative"
E110 = "Error 110: invalid message, cannot be empty"
E111 = "Error 111: invalid subscription type, cannot be undefined or 0"
E112 = "Error 112: invalid subscription type start at sequence value, cannot by 0 or negative"
E113 = "Error 113: invalid subscription type start at time value, cannot by 0 or negative"
E114 = "Error 114: invalid subscription type start at time delta value, cannot by 0 or negative"
E115 = "Error 115: invalid request, cannot be empty"
E116 = "Error 116: invalid cache ttl value, cannot be 0 or negative"
E117 = "Error 117: invalid request id, cannot be empty"
E118 = "Error 118: event store parameters were set but subscribe type is not event store"
E119 = "Error 119: invalid channel value, cannot end with `.`"
E120 = (
    "Error 120: invalid queue name value, cannot be empty, contains wildcards ,white spaces"
    " and end with dot"
)
E122 = "Error 122: max messages should be between 1 and max message setting in kubemq config  "
E124 = "Error 124: no active message to ack"
E125 = "Error 125: ack sequence cannot be 0 or negative"
E126 = "Error 126: no active message to send"
E127 = "Error 127: invalid visibility time, cannot be negative or exceed setting in kubemq config"
E128 = "Error 128: subscription to queue is already active"
E131 = "Error 131: invalid queue message"
E132 = "Error 132: invalid stream queue messages request type"
E133 = (
    "Error 133: invalid expiration seconds, exceed max expiration seconds setting in kubemq config"
)
E134 = (
    "Error 134: invalid max received count, cannot be negative or exceed max receive count"
    " setting in kubemq config"
)
E135 = "Error 135: invalid delay seconds, exceed max delay seconds setting in kubemq config"
E136 = (
    "Error 136: invalid wait timeout, value cannot be negative or exceed max wait timeout seconds"
    " setting in kubemq config"
)
E137 = "Error 137: no active message to reject"
E138 = "Error 138: no new message in queue, wait time expired"
E206 = "Error 206: invalid request type"
E207 = "Error 207: invalid subscribe type"
E301 = "Error 301: timeout for request message"
