# Run every hour at minute 0
pipeline.schedule(schedule_type="hourly", value=0)

# Run daily at 3:00 AM UTC
pipeline.schedule(schedule_type="daily", value=3)

# Custom cron expression
pipeline.schedule(schedule_type="cron", value="0 */6 * * *")

# Weekly on Monday at 9 AM
pipeline.schedule(schedule_type="weekly", value="MON:09:00")
