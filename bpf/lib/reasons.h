/* Why a packet or a call was refused. Append only; bpf/reasons.py has a sentence for each. */
#pragma once

#define REASON_OK 0
#define REASON_NOT_READY 1
#define REASON_NOT_IP 2
#define REASON_NEIGHBOUR 3
#define REASON_BAD_MAC 4
#define REASON_MALFORMED 5
#define REASON_IP_OPTIONS 6
#define REASON_EXTENSION_HEADER 7
#define REASON_PROTOCOL 8
#define REASON_SPOOFED_SOURCE 9
#define REASON_MULTICAST 10
#define REASON_UNKNOWN_DESTINATION 11
#define REASON_SERVICE_ON_WIRE 12
#define REASON_FLOOR 13
#define REASON_NO_RULE 14
#define REASON_DENIED 15
#define REASON_EGRESS 16
#define REASON_FRAGMENT 17
#define REASON_ICMP 18
#define REASON_NOT_LOCAL 19
#define REASON_NO_BACKEND 20
#define REASON_NO_SERVICE 21
#define REASON_NODE 22
#define REASON_REVOKED 23
#define REASON_NAME 24		/* the resolver's; no program gives it */
#define REASON_BANDWIDTH 25
#define REASON_RATE 26
#define REASON_CONNECTIONS 27
#define REASON_QUOTA 28
#define REASON_EDGE_DENIED 29
#define REASON_EDGE_RATE 30
#define REASON_NAME_FLOOR 31	/* the agent's, about what the resolver learned; likewise the next */
#define REASON_NAME_QUOTA 32
