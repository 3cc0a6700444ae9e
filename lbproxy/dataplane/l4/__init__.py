"""Layer 4: connections whose bytes are relayed as they are."""
