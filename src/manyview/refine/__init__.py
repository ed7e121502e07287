"""From a good guess to exact cameras: reports on photos, bundle adjustment, refitted depth."""
