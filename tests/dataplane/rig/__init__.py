"""What the data plane's cases are made with: raw clients, recording servers, the two proxies."""
