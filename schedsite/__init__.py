"""The site: composes the apps into processes. Nobody imports it."""
