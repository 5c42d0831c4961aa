"""What a consumer installs: seal and open files under policy."""
