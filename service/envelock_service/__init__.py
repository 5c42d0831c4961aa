"""What servers share to be servers. Never imported by the SDK."""
